"""Records at their owner's: tables read, Synthea exports prepared and split, hospitals simulated."""
