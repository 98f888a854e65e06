"""The one offline HTML page."""
