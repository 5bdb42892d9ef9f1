"""The checks of every lesson's exercises."""
