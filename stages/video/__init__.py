"""Videos as the rest of the system sees them.

Found (`sources`) and named (`names`), decoded in order (`decoding`; `frame_folders` where they are pictures, `cut_off`
where they end early), read at random (`index`), written (`writing`); and which frames feed which map (`clips`). The
decision that is not obvious: a frame is known by its number, counted from 0 by decoding or taken from the name of its
file (`numbers`), and by nothing else; no timestamp and no header has a say. What an operation costs stands in its file.
"""
