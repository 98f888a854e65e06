"""End-to-end training: images through every backbone into DVME (or, for one model, a linear layer); all of it trains.

settings.py    what is trained and how; where it runs
images.py      a dataset's images by id, kept in memory or decoded ahead
augment.py     augmentations by kind of image, seeded a sample and epoch
network.py     backbones, fixed standardisation, head; blocks, rates, what stays frozen
start.py       the frozen warm start, from the cached stage
training.py    the loop
checkpoint.py  checkpoints that resume exactly
ranks.py       several processes under torchrun
fit.py         choosing on a fifth of the budget, then the refit
evaluate.py    draws -> fits -> scores
saved.py       the tuned network on disk, and predicting with it
"""
