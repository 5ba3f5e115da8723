// ends: error SyntaxError
} }; process.exit(1); ({ x() {{
