"""Answers in text: pairs of question and answer, model, training, packs."""
