# COCO with a shorter side of 600 pixels in training and testing, and a longer one of at most 1000:
# the ratio of the usual 800 and 1333 (DEVIATION D12).
_base_ = './coco_detection.py'
train_pipeline = _base_.train_pipeline
test_pipeline = _base_.test_pipeline
train_pipeline[2]['scale'] = (1000, 600)
test_pipeline[1]['scale'] = (1000, 600)
train_dataloader = dict(dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
