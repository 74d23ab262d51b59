"""The hot operations behind plain functions of tensors. They know nothing of models, caches or requests."""
