"""One budget -> the network that predicts; everything here sees only the budget.

schedule.py    how long to train, and what choosing may cost
held_out.py    fifths of the budget to choose on
planning.py    the fifths and the schedule of a budget, before anything trains
shares.py      how much of the trained network and of its start, and at which temperature
fit.py         the race of the candidates, the share, the refit
"""
