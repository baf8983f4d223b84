"""The networks: teacher HD2S and student TinyHD behind one face, what they are made of, and how they are run.

Floors, each knowing only those below:

    inference                 windows of a video in, maps out
    network                   a weights file in, named maps out; memory layout and device
    hd2s, tinyhd              the published topologies
    window_runs, decoders     what neighbouring windows of HD2S share; TinyHD's three decoders
    inflation                 image weights as the encoder's start
    s3d, mobilenet            the encoders
    layers, levels, weights, imagenet, divergence, overlap, precision
"""
