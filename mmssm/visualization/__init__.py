"""The pictures that mmssm draws."""
