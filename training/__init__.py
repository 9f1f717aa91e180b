"""How a model learned: labelled pictures in, a folder with weights, labels, recipe and measured figures out.

``python -m training prepare | finetune | evaluate | bundle``. This room knows only ``models``.
"""
