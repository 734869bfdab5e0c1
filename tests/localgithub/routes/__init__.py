"""The handlers of the REST API, one module per kind of object."""

from tests.localgithub.routes import (
    checks,
    commits,
    contents,
    gitdata,
    graphql,
    issues,
    pulls,
    reactions,
    releases,
    repos,
)

ROUTERS = [
    repos.router,
    gitdata.router,
    contents.router,
    commits.router,
    pulls.router,
    issues.router,
    reactions.router,
    checks.router,
    releases.router,
    graphql.router,
]
