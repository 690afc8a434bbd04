pytest_plugins = ["kv_claims.plugin.hooks"]
