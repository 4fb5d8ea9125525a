"""Parts of the loop from the stopwatch to the prediction.

`plan`, `session` and `packing` run where the device is: of the project they need the folder
costmodel/reference, which they start as a process.  The others run where costmodel is installed.
"""
