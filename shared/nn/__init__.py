"""What two or more networks share. Import the module you need: some load a framework."""
