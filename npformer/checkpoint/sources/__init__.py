"""Weights from other libraries: one file per source, each a table of names and of the settings that go with them.

Every source has

    rename(keys, family)   what each of its keys is called here; `family` is a `model_type`, such as "efficientnet"
    ARCHITECTURES          its models by their names there: the variant here, and the settings in which they differ

so that weights made elsewhere load into the models here as they are:

    variant, settings = timm.ARCHITECTURES["tf_efficientnet_b0"]
    config = EfficientNetConfig.for_variant(variant, **settings, num_labels=1000)
    names = timm.rename(state, "efficientnet")
    EfficientNetForImageClassification(config).load_state_dict({names[key]: array for key, array in state.items()})

Names alone do not say everything: the same keys and shapes belong to models that pad or normalise differently.
"""

from . import timm, torchvision

__all__ = ["timm", "torchvision"]
