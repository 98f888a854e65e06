"""End-to-end training: images through every backbone into DVME (or, for one model, a linear layer); all of it trains.

request.py     what is trained and how; where it runs
cli.py         the options of `mt fuse --unfreeze`
run.py         the study: draws -> fits -> scores
tuner.py       one question -> one fit: its images, its network, its predictions
choice/        what is decided inside the budget: rates, share of the trained networks, temperature
trainable/     what of a backbone trains and how fast; adapters
network.py     backbones, fixed standardisation, head
blended.py     the trained networks beside their start
warm_start.py  the start, from the cached stage
loop.py        the training loop
work.py        images on their way to a device; predicting
images.py      a dataset's images by id, kept in memory or decoded ahead
augment.py     augmentations by kind of image, seeded per sample and epoch
checkpoint.py  checkpoints that resume exactly
saved.py       the network on disk, and predicting with it
"""
