"""What a data set says about its pyramid before any training.

clip_spectrum                  covariances over frames, by spatial frequency, of a sample of clips
axis_maps -> detail_share      how much of a video its coarse frames cannot show
"""
