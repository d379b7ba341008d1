"""The small RetinaNet on Shapes with the loss and the miner of the plug-in."""

_base_ = "fldet::shapes/retinanet_r18_shapes.py"
model = dict(
    bbox_head=dict(
        loss_cls=dict(
            _delete_=True, type="fldet_example.PolyFocalLoss", use_sigmoid=True, epsilon=1.0
        )
    ),
    train_cfg=dict(miner=dict(type="fldet_example.HardestShare", share=0.05)),
)
