"""What a judge's grades are worth: labelled answers that it is measured with, its agreement with them, people's grades.

Kept out: how a judge is asked (metrics/judges.py), and what a study does about it (study/judges.py).
"""
