"""What an audit leaves behind: claims, evidence tables, the signed verdict."""
