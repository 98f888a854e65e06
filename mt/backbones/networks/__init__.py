"""The networks that this project builds itself, as their authors published them."""
