"""What maps are for: crops that follow what is looked at, bits for it, frames that show it.

Plain functions of maps; what of them is written to files stands above, in predictions.
"""
