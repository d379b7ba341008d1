"""The paper's rows as they are: COCO train2017, 90k iterations of 16 images.

Hardware: 8 GPUs with 2 images each (--gpus 8), as in the paper, 10 to 35 hours a model; or another
number with a batch size to match, as --gpus 2 --cfg-options train_dataloader.batch_size=8.
Minutes: 900 a run on 8 GPUs by the paper's figure; not run here.
"""
