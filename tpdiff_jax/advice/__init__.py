"""What a data set says about its pyramid before any training; nothing here trains or compiles.

clip_spectrum           covariances over frames of a sample of clips, by spatial frequency
detail_share            how much of a video its coarse frames cannot show
exact_law, jump_debts   what few steps cost an exact predictor; what jumps leave to do
settings_grid -> search -> choice    the settings that are tried, judged, and the best of them
advice_text             the same in words
"""
