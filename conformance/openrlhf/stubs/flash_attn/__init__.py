"""Stands in for flash-attn, which is built for a GPU: the names that OpenRLHF imports, none of which is called here."""
