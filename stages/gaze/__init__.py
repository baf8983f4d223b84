"""Where people looked: data sets with recorded gaze, and the metrics that compare maps with it."""
