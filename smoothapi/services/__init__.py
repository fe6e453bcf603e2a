"""The providers' wire protocols, server side. Holds nothing yet."""
