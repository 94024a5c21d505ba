"""Harnesses that compare this project with what people would use instead."""
