"""Forward and backward passes of training written out, where that is faster than what the libraries compose."""
