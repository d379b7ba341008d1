"""The focal loss, as RetinaNet has it."""
_base_ = './base.py'
