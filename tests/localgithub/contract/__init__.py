"""The contract with GitHub: requests and the local GitHub's replies are held to GitHub's own OpenAPI description.

``tools`` installs the description and prism, ``spec`` finds the operation of a request, ``prism`` has both sides
of a recorded exchange validated. Any test may hold its traffic to the contract: ``violations(exchanges)``.
"""
