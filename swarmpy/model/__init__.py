"""NOUNS: ids, specs, objects, the task lifecycle, codec, errors. Pure data, no behaviour of the cluster."""
