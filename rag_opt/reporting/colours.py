"""The colours of all figures."""

BLUE, ORANGE, GREEN, GREY, RED = "#0072B2", "#D55E00", "#009E73", "#8a8a8a", "#CC3311"
"""Told apart by people who see colours differently (Okabe and Ito 2008), on light and dark ground."""
