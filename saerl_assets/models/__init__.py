"""Language models and sparse autoencoders: the home of torch, transformers and sae_lens.

Belongs here: loading, reading, encoding, SAE training. Does not belong here: where rows are stored.
"""
