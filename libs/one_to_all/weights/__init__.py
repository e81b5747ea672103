"""Weights: from the files of a model repository to networks ready to compute.

``loading`` builds the networks; ``checkpoint`` compares shards with a model, and ``reading`` reads tensors at the speed
of the disk; ``fp8`` holds weights in 8 bits. ``lora`` adds a LoRA to a network, ``lora_file`` and ``lora_names`` say
what a file holds.

Import from the modules: ``lora_file`` and ``lora_names`` are used where there is no torch.
"""
