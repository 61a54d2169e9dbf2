"""Independent decoders that say what a capture holds, to compare the sensor with."""
