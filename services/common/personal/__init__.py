"""What each service knows of a person: written down for them, and erased. A service contributes its part through
`PersonalData`; who asks for it, and what becomes of the parts, is auth's."""
