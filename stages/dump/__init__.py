"""What a teacher dump is made of: a teacher's maps of a video, the fidelity of storing them, the work of one shard, the
plan of all of them, and Dask workers that share it.
"""
