"""`mercat org sso`: an organisation's own OpenID provider, and the domains that it is for."""

from typing import Annotated

import typer
from mercat.auth.v1 import sso_pb2 as pb

from services.cli import output
from services.cli.account import asked_password
from services.cli.command import Session, command
from services.cli.paging import Limit, gather
from services.common.errors import NotFound

Domain = Annotated[str, typer.Argument(metavar="DOMAIN", help="Such as acme.com.")]
Force = Annotated[bool, typer.Option("--force", help="Though there are people who sign in in no other way.")]


def add_to(org: typer.Typer) -> None:
    group = typer.Typer(help="Your own single sign-on.", no_args_is_help=True, rich_markup_mode="rich")
    group.command("set")(command(set_connection))
    for function in (show, domain, verify, forget, remove):
        group.command()(command(function))
    org.add_typer(group, name="sso")


def set_connection(
    session: Session,
    issuer: Annotated[str, typer.Argument(help="The provider's address, https://….")],
    client_id: Annotated[str, typer.Option(help="What Mercat is called there.")],
    keep: Annotated[bool, typer.Option("--keep-secret", help="The client's secret stays, or it has none.")] = False,
    secret_stdin: Annotated[bool, typer.Option("--secret-stdin", help="Read the secret instead of asking.")] = False,
    role: Annotated[str, typer.Option(help="What newcomers are given.")] = "viewer",
    required: Annotated[bool, typer.Option(help="Whether people of the domains sign in in no other way.")] = False,
) -> None:
    """Sets up or changes the connection. Register the platform's address with /oauth/callback at the provider.

    Example: mercat org sso set https://login.acme.com --client-id mercat --role developer
    """
    said = "" if keep else asked_password(secret_stdin, confirm=False, prompt="Client secret")
    request = pb.SetSsoConnectionRequest(
        issuer=issuer, client_id=client_id, client_secret=said, default_role=role, required=required
    )
    made = session.client.sso.SetSsoConnection(request).connection
    if session.json:
        output.say_json(made)
    else:
        output.say(
            f"People of your domains sign in at {output.clean(made.issuer)}. Prove one: `mercat org sso domain`."
        )


def show(session: Session, limit: Limit = 50) -> None:
    """Shows the connection and the domains.

    Example: mercat org sso show
    """
    stub = session.client.sso
    try:
        one = stub.GetSsoConnection(pb.GetSsoConnectionRequest()).connection
    except NotFound:
        one = pb.SsoConnection()
    answer = gather(stub.ListSsoDomains, pb.ListSsoDomainsRequest(), "domains", limit)
    if session.json:
        output.say_json({
            "connection": output.document(one) if one.issuer else None,
            "domains": output.document(answer).get("domains", []),
        })  # fmt: skip
        return
    if one.issuer:
        output.facts([
            ("provider", one.issuer), ("client", one.client_id), ("newcomers are", one.default_role),
            ("required", "yes" if one.required else "no"), ("changed", output.when(one.updated_at)),
        ])  # fmt: skip
    else:
        output.say("There is no connection; set it up with `mercat org sso set`.")
    output.table(
        ["domain", "proved", "TXT record", "value"],
        [
            (d.domain, output.when(d.verified_at) if d.HasField("verified_at") else "no", d.record_name, d.record_value)
            for d in answer.domains
        ],
        empty="There are no domains; add one with `mercat org sso domain DOMAIN`.",
    )  # fmt: skip


def domain(session: Session, domain: Domain) -> None:
    """Begins to prove that a domain is yours: says which record to publish.

    Example: mercat org sso domain acme.com
    """
    made = session.client.sso.AddSsoDomain(pb.AddSsoDomainRequest(domain=domain)).domain
    if session.json:
        output.say_json(made)
        return
    output.facts([("name", made.record_name), ("type", "TXT"), ("value", made.record_value)])
    output.say(f"Publish this record, and then: mercat org sso verify {made.domain}")


def verify(session: Session, domain: Domain) -> None:
    """Looks for the record of a domain.

    Example: mercat org sso verify acme.com
    """
    made = session.client.sso.VerifySsoDomain(pb.VerifySsoDomainRequest(domain=domain)).domain
    if session.json:
        output.say_json(made)
    else:
        output.say(f"{made.domain} is yours. Its people sign in with `mercat login --sso {made.domain}`.")


def forget(session: Session, domain: Domain, force: Force = False) -> None:
    """Removes a domain: its people sign in by your provider no more.

    Example: mercat org sso forget acme.com
    """
    session.client.sso.RemoveSsoDomain(pb.RemoveSsoDomainRequest(domain=domain, force=force))
    if session.json:
        output.say_json({"domain": domain})
    else:
        output.say(f"{output.clean(domain)} is removed.")


def remove(session: Session, force: Force = False) -> None:
    """Ends the connection; members stay. Names who could not sign in any more.

    Example: mercat org sso remove
    """
    session.client.sso.DeleteSsoConnection(pb.DeleteSsoConnectionRequest(force=force))
    if session.json:
        output.say_json({"removed": True})
    else:
        output.say("Single sign-on is ended.")
