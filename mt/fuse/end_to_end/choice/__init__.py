"""One budget -> the networks that predict; what is fitted here sees only the budget.

schedule.py    how long to train, and what choosing may cost
held_out.py    fifths of the budget to choose on
planning.py    the fifths and the schedule of a budget, before anything trains
shares.py      how much of the trained network and of its start, and at which temperature
fit.py         the race of the candidates, the share, the refit
record.py      what is kept of trials and trainings, for resuming
own_scaling.py the temperature as it is printed and stored
"""
