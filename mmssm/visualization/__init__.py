"""Every picture that mmssm draws."""
