# What a packaged model is tested with: its own model and images, data in the COCO layout below data_root.
_base_ = ['datasets/coco_detection.py', 'default_runtime.py']
test_cfg = dict(type='TestLoop')
