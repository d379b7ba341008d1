# A data set in the COCO layout. Names relative to data_root; another root needs one override:
#   --cfg-options data_root=PATH
data_root = 'data/coco/'
# None: all classes of the training annotation file. Or a tuple of names, in the order wanted.
classes = None

train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    dict(type='fldet.RandomFlip', prob=0.5),
    dict(type='fldet.PackDetInputs'),
]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True),
    # After the resizing, so that boxes stay in the pixels of the file.
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='fldet.PackDetInputs',
        meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')),
]
# DEVIATION D8: images without objects are kept.
train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    batch_sampler=dict(type='AspectRatioBatchSampler'),
    dataset=dict(
        type='fldet.CocoDataset',
        ann_file='annotations/instances_train2017.json',
        data_prefix=dict(img='train2017/'),
        # Left out by name; one more ends the training. 0 stops at the first.
        max_broken_images=10,
        pipeline=train_pipeline))
# DEVIATION D18: the paper's Tables 1e and 2 are of test-dev, whose truth is not public.
val_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='fldet.CocoDataset',
        ann_file='annotations/instances_val2017.json',
        data_prefix=dict(img='val2017/'),
        test_mode=True,
        pipeline=test_pipeline))
# The annotation file is that of the loader; a test loader and evaluator equal to these are implied.
val_evaluator = dict(type='fldet.CocoMetric')
