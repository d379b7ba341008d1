"""What kind of data set lies at a path: COCO, Pascal VOC, YOLO or that of another tool.

Only the path itself and folders with the usual names below it are looked at; the result names, for
each split, the keywords of the data set class that reads it.
"""
