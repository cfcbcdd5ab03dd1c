"""The silicon: what a processor does when memory is touched.

Compiled and pure: it reads tables, sets accessed and dirty bits, owns caches and counters. It never
allocates, decides no policy, and does not know why memory moved.
"""
