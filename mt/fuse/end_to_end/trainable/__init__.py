"""What of a backbone trains, and how fast.

blocks.py      the steps from its images to its embedding
depthwise.py   depthwise convolutions on small maps, faster on a CPU
families.py    candidates for the learning rates, by the kind of network
lora.py        low-rank adapters of attention and MLP layers, merged when training ends
"""
