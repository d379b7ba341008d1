"""The paper's rows as they are: COCO train2017, 90k iterations of 16 images.

Hardware: any number of GPUs (--gpus); the paper used 8, for 10 to 35 hours a model.
Minutes: 900 a run on 8 GPUs by the paper's figure; not run here.
"""
