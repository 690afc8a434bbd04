pytest_plugins = ["kv_claims.plugin.hooks", "kv_claims.plugin.short_options"]
