"""What Streamlit runs. In a folder of its own, because Streamlit puts the script's folder on the search path."""

from aevorium.dashboard.app import main

main()
