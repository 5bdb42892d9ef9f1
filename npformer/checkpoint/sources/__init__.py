"""Weights from other libraries: one file per source, each a table of names and of the settings that go with them.

Every source has

    rename(keys, family)   the name here of each of its keys; `family` is a `model_type`, such as "efficientnet"
    ARCHITECTURES          its models by their names there: the variant here, and the settings in which they differ
    arrange(name, array)   where it stores arrays in another order: an array in the order used here

so that foreign weights load into the models here as they are:

    variant, settings = timm.ARCHITECTURES["tf_efficientnet_b0"]
    config = EfficientNetConfig.for_variant(variant, **settings, num_labels=1000)
    names = timm.rename(state, "efficientnet")
    EfficientNetForImageClassification(config).load_state_dict({names[key]: array for key, array in state.items()})

Names alone do not decide everything: the same keys and shapes belong to models that pad or normalise differently.
`npformer.convert.recognise` infers the source, model and settings of weights.
"""

from . import keras, lukemelas, mmpretrain, original, tensorflow, timm, torchvision, transformers
from .rules import Source

SOURCES: dict[str, Source] = {
    "transformers": Source(transformers.rename, transformers.ARCHITECTURES, transformers.MARKS),
    "timm": Source(timm.rename, timm.ARCHITECTURES, timm.MARKS),
    "torchvision": Source(torchvision.rename, torchvision.ARCHITECTURES, torchvision.MARKS),
    "original": Source(original.rename, original.ARCHITECTURES, original.MARKS, refused=original.REFUSED),
    "mmpretrain": Source(mmpretrain.rename, mmpretrain.ARCHITECTURES, mmpretrain.MARKS, refused=mmpretrain.REFUSED),
    "lukemelas": Source(lukemelas.rename, lukemelas.ARCHITECTURES, lukemelas.MARKS),
    "keras": Source(keras.rename, keras.ARCHITECTURES, keras.MARKS, keras.LEFT_OUT, arrange=keras.arrange),
    "tensorflow": Source(tensorflow.rename, tensorflow.ARCHITECTURES, tensorflow.MARKS, arrange=tensorflow.arrange),
}

__all__ = [
    "SOURCES",
    "keras",
    "lukemelas",
    "mmpretrain",
    "original",
    "tensorflow",
    "timm",
    "torchvision",
    "transformers",
]
