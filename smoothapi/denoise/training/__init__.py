"""How denoisers are made and measured: photos, surrogates, recipes, the trainer, evaluation."""
